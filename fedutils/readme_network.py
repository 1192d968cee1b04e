"""What hospitals on a real network cost, in words for the README."""


def tell_network(measured: dict) -> list[str]:
    """Return paragraphs on rounds over a network and the console's speed; none of what was not measured.

    Parameters
    ----------
    measured : dict
        Of ``benchmarks/results.json``.
    """
    lines = []
    if console := measured.get("round_seconds_console"):
        tff, flower = measured["round_seconds_tff"], measured["round_seconds_flower"]
        lines += [
            "",
            f"On a network: a round of {measured['network_round_hospitals']} hospitals with "
            f"{measured['network_round_images']} images in all and a network of "
            f"{measured['network_round_num_parameters']:,} parameters took {tff:.1f} s by TFF in one "
            f"process, {console:.1f} s over the console and {flower:.1f} s over Flower, whose SuperNodes "
            "start a process for every message; their weights ended within "
            f"{measured['network_round_max_weight_difference']:.0e} of TFF's.",
        ]
    if sent := measured.get("console_mb_per_s"):
        got, of_tls = measured["console_get_mb_per_s"], measured["console_tls_ratio"]
        lines += [
            "",
            f"The console sent {measured['console_mb']:.0f} MB of weights, until they were checked and "
            f"stored, at {sent:.0f} MB/s, {of_tls:.2f} of a bare copy of the same bytes over TLS "
            f"({measured['console_disk_tls_ratio']:.2f} with its state on the disk), and got them at "
            f"{got:.0f} MB/s ({measured['console_get_tls_ratio']:.2f}). As nested lists of doubles, without "
            f"TLS or checks, weights took {measured['console_vs_nested_lists']:.1f} times as long to send.",
        ]
    return lines
