#!/bin/sh
# Says why, and ends with the code that it is given (3 if none).
echo "tiny: failing on purpose" >&2
exit "${1:-3}"
