"""What all scripts of Python share: the table of scenarios, and a line of JSON for each."""

import argparse
import json
import time
import traceback

SCENARIOS = []

# 1 x 1 pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "The city"}},
    "required": ["city"],
    "additionalProperties": False,
}
EIGHT = "the gateway reads each event once and keeps"


def scenario(function):
    SCENARIOS.append(function)
    return function


def raises(kind, call):
    """The exception that a call has to end in."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected, and nothing was raised")


def equal(seen, expected):
    assert seen == expected, f"{seen!r} is not {expected!r}"
    return seen


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", required=True, help="where the provider or the gateway is, without a path")
    parser.add_argument("--model", default="mock", help="the name of the model")
    parser.add_argument("--provider", default="same", help="the dialect of the provider behind the gateway")
    parser.add_argument("--only", default="", help="only scenarios whose names have this in them")
    return parser.parse_args()


def play(sdk, make):
    """Plays all scenarios; each gets what `make` makes of the arguments."""
    options = arguments()
    context = make(options)
    for function in SCENARIOS:
        name = function.__name__
        if options.only not in name:
            continue
        begun = time.monotonic()
        try:
            ok, saw = True, function(context)
        except Exception as error:  # Any failure of a scenario is a line, not the end of the others.
            where = traceback.extract_tb(error.__traceback__)[-1]
            ok, saw = False, f"{type(error).__name__}: {error} (line {where.lineno})"
        took = round(1000 * (time.monotonic() - begun))
        print(json.dumps({"sdk": sdk, "name": name, "ok": ok, "saw": saw, "ms": took}, default=str), flush=True)
