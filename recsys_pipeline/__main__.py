"""`python -m recsys_pipeline`: what the warehouse holds."""

import sys

from recsys_pipeline import settings
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.reporting.summary import summary


def main() -> int:
    """Print the summary of the current model."""
    try:
        print(summary(settings.WAREHOUSE))
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
