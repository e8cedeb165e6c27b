"""The three commands: parse, call, exit code. The only place that prints and exits."""
