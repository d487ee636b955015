"""Names for containers that were given none: an adjective and the surname of someone who made computing."""

import secrets
from collections.abc import Callable

_ADJECTIVES = """
    able agile alert ample apt avid awake balmy bold brave breezy brief bright brisk calm candid civil clean
    clear clever cosy crisp curious deft direct dry eager early easy even exact fair fast fine firm fit fleet
    fluent fond frank free fresh full gentle glad golden good grand green handy happy hardy hearty honest humble
    ideal jolly keen kind large lean level light limber lively loyal lucid lucky mellow merry mild modest neat
    nimble noble open patient placid plain plucky polite prime prompt proud pure quick quiet rapid ready regal
    rich ripe robust rosy round sage serene sharp shiny silent simple sleek smart smooth snug sober solid sound
    spry stable steady still stout strong sturdy subtle sunny sure swift tidy tough trim true upbeat valid vivid
    warm wise witty young zesty
"""

_SURNAMES = """
    aiken allen amdahl atanasoff babbage backus baran bartik bell berners blum boole borg bricklin brooks
    carmack cerf church clarke cocke codd conway corbato cray curry dahl davies dijkstra eckert engelbart ershov
    estrin feinler floyd forrester gates goldberg gosling granville gray hamilton hamming hoare holberton
    hollerith hopper iverson jennings johnson joy kahan kahn karp kay kemeny kernighan kilby knuth kurtz lamarr
    lamport lampson landin lebedev liskov lovelace mauchly mccarthy mcilroy meyer milner minsky moore naur
    newell noyce nygaard ousterhout papert pascal perlis perlman pike postel rabin raymond reeves ritchie
    roberts rossum sammet scott shannon shaw shirley simon stallman steele stibitz strachey stroustrup
    sutherland tarjan thompson torvalds turing ullman wall wilkes wilkinson wing wirth zuse
"""


def generate(taken: Callable[[str], bool]) -> str:
    """A name for which `taken` is false; after a few tries a random suffix makes it free."""
    adjectives, surnames = _ADJECTIVES.split(), _SURNAMES.split()
    for _ in range(8):
        name = f"{secrets.choice(adjectives)}_{secrets.choice(surnames)}"
        if not taken(name):
            return name
    return f"{name}_{secrets.token_hex(4)}"
