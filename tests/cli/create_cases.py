"""Flag combinations of `create`; what the docker CLI makes of each is recorded in data/create.json by record.py.

Every case is an argument list after `create`. The working directory holds the files of FILES.
"""

import os
import shlex

FILES = {
    "a.env": "A=1\n# comment\n\nB=two words\nFROM_HOST\n  LEADING=x\nEMPTY=\nC='q'\n",
    "bad.env": "GOOD=1\nin valid=2\n",
    "noname.env": "=x\n",
    "b.env": "A=later\nZ=9\n",
    "a.labels": "l1=v1\n# no\nl2\nl3=\n",
    "seccomp.json": '{\n  "defaultAction": "SCMP_ACT_ALLOW",\n'
    '  "syscalls": [ { "names": ["a b"], "action": "SCMP_ACT_ERRNO" } ]\n}\n',
    "broken.json": "{ nope",
}

HERE = os.path.dirname(os.path.abspath(__file__))


def cases() -> list[list[str]]:
    """The argument lists, in order."""
    with open(os.path.join(HERE, "data", "create_cases.txt")) as file:
        return [shlex.split(line) for line in file]
