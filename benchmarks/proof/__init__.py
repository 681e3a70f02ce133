"""The tests' planted wrong and right rules, judged by adjax and today's checkers: ``python -m benchmarks.proof``.

Nothing is timed against a bar here, so this is a folder: ``python -m benchmarks`` takes the modules beside it alone.
"""
