"""Code in documents, run as a reader would run it."""

import ast
import asyncio
import inspect
import re


def blocks(document, language):
    """The text of the fenced blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", document, re.DOTALL)


def run_block(code, namespace):
    """As Jupyter runs a cell: with `await` at the top level, inside a running loop."""
    compiled = compile(code, "<block>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def cell():
        result = eval(compiled, namespace)
        if inspect.isawaitable(result):
            await result

    asyncio.run(cell())
