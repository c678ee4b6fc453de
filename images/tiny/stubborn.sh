#!/bin/sh
# Does not end when asked to.
trap 'echo "tiny: no"' TERM INT HUP
echo "tiny: staying"
while :; do sleep 1; done
