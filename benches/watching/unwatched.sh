#!/bin/sh
# What cargo starts in place of rustc for the packages of this workspace (RUSTC_WORKSPACE_WRAPPER): the library without its stats and
# events. The dependencies are built once for both.
exec "$@" --cfg sockeye_unwatched
