"""The planted wrong and right rules of the tests, judged by adjax and by today's checkers: ``python -m benchmarks.proof``.

Nothing is timed against a bar here, so this is a folder: ``python -m benchmarks`` takes the modules beside it alone.
"""
