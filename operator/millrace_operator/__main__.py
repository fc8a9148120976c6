"""`python -m millrace_operator`."""

from millrace_operator.main import main

if __name__ == "__main__":
    main()
