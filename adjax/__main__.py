"""Placeholder."""
import sys
from adjax.examples import worked_example
def main(): return worked_example.main()
if __name__ == "__main__": sys.exit(main())
