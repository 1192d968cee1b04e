"""How long a report takes: by the rules, and by a language model that needs no time to think.

Prints one JSON line. The facts and the replies are those of the tests. Medians, in milliseconds.

- ``report_rules_ms``: prose by the rules.
- ``report_check_ms``: the check of one good reply.
- ``report_stub_ms``: `fedutils.report_llm.ask` with a server of this process that answers at once, streaming:
  what comes on top of a model's own time. ``report_stub_unchecked_ms``: the same reply, read and filled in
  without the check. ``report_stub_refused_ms``: with two replies that are refused.
- ``report_html_ms`` and ``report_pdf_ms``: the page, without pictures.
- ``report_replies_tried`` and ``report_replies_passed``: replies that must not pass, and how many did.
"""

import statistics
import sys
import time
from pathlib import Path

import _common


def measure_reports(repeats):
    """Return the benchmark's numbers."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from adversarial_replies import make_bad, make_facts, make_good

    from fedutils.llm_endpoint import complete
    from fedutils.prose_check import find_faults
    from fedutils.prose_inserts import fill_prose
    from fedutils.report import compose, render_html, render_pdf
    from fedutils.report_llm import Endpoint, ask, make_messages, parse_reply
    from fedutils.report_stub import StubServer, stream_reply

    facts, good = make_facts("image"), make_good("image")
    prose = compose(facts)

    def write_unchecked(endpoint):
        sections, _ = parse_reply(complete(endpoint, {"messages": make_messages(facts)}))
        return fill_prose(sections, facts)

    def time_ms(function):
        function()
        taken = []
        for _ in range(repeats):
            started = time.perf_counter()
            function()
            taken.append(1000 * (time.perf_counter() - started))
        return round(statistics.median(taken), 3)

    result = {
        "report_rules_ms": time_ms(lambda: compose(facts)),
        "report_check_ms": time_ms(lambda: find_faults(good, facts)),
        "report_html_ms": time_ms(lambda: render_html(facts, prose)),
        "report_pdf_ms": time_ms(lambda: render_pdf(facts, prose)),
    }
    for key, reply, author in (
        ("report_stub_ms", good, "language model stub"),
        ("report_stub_refused_ms", good | {"finding": "The model predicted glioma, 99 %."}, "rules"),
    ):
        with StubServer(stream_reply(reply)) as server:
            endpoint = Endpoint(server.url, "stub")
            if ask(facts, endpoint).author != author:
                raise RuntimeError(f"expected a report by {author}")
            result[key] = time_ms(lambda endpoint=endpoint: ask(facts, endpoint))
            if author != "rules":
                result["report_stub_unchecked_ms"] = time_ms(
                    lambda endpoint=endpoint: write_unchecked(endpoint)
                )
    replies = make_bad()
    passed = [reply for _, _, name, reply in replies if not find_faults(reply, make_facts(name))]
    return result | {"report_replies_tried": len(replies), "report_replies_passed": len(passed)}


def main():
    parser = _common.build_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=50)
    options = parser.parse_args()
    _common.finish(_common.run_fresh(measure_reports, options.repeats), options.out)


if __name__ == "__main__":
    main()
