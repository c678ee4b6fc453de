#!/bin/sh
# Says what it was given, and ends: arguments, user, directory, host name, environment.
echo "args $*"
echo "user $(id -u):$(id -g)"
echo "cwd $(pwd)"
echo "host $(hostname)"
env | sort | sed 's/^/env /'
