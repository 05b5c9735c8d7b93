# Short names for the long commands. `just` lists them.

set shell := ["bash", "-euo", "pipefail", "-c"]
set positional-arguments

# List the recipes.
_default:
    @just --list --unsorted

# Start a demo shop on http://127.0.0.1:3000 (more flags may follow).
serve *args:
    cargo run --release --locked -- serve --demo "$@"

# Run everything that must pass before a change is merged; arguments filter the tests.
test *args:
    scripts/test "$@"

# Check the style: clippy, with warnings as errors.
lint:
    cargo clippy --workspace --all-targets --all-features --locked -- -D warnings

# Format the code.
fmt:
    cargo fmt --all

# Send open-loop load to a running server and print the verdict.
stress sale="sale_1" rate="2000" duration="5s" url="http://127.0.0.1:3000":
    cargo run --release --locked -- stress --url "$4" --sale "$1" --rate "$2" --duration "$3"

# Check a sale's promises against the store (more flags may follow).
verify sale="sale_1" *args:
    cargo run --release --locked -- verify --sale "$1" "${@:2}"

# Measure everything in turns, as ratios to a constant answer (N), into docs/performance.md (more flags may follow).
bench *args:
    scripts/bench "$@"

# Count the instructions of the hot paths, and compare with what is stored (more flags may follow).
bench-instructions *args:
    scripts/bench-instructions "$@"

# Measure what it costs as work grows, into docs/performance.md (more flags may follow).
scale *args:
    scripts/scale "$@"

# Two replicas and three workers on the services of this machine (more flags may follow).
cluster *args:
    scripts/cluster "$@"

# Take pictures of the pages, into screenshots/.
screenshots *args:
    scripts/screenshots "$@"

# Measure a sale's first view: bytes over the line, and paint and shift in Chromium.
first-view:
    scripts/first-view
