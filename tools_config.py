"""The one list of tools. Adding a tool: a folder under `tools/`, and a line here. `CLAUDE.md` has the guide.

Each line names a tool and what makes it: a class or a function. That is imported when the tools API starts, and nowhere
else; one that cannot be (a package is missing) leaves its tool switched off, with the reason, and the others as they
are.
"""

from collections.abc import Mapping

TOOLS: Mapping[str, str] = {
    "python_coder": "tools.python_coder.tool:make_python_coder",
    "ppt_maker": "tools.ppt_maker.tool:PptMaker",
    "websearch": "tools.web_search.tool:WebSearch",
    "rag": "tools.rag.tool:Rag",
}
