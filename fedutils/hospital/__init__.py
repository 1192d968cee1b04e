"""Hospitals on a real network: a Thrift console, whose server averages what hospitals send."""
