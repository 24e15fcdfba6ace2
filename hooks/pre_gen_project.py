"""Cookiecutter runs this in the new, still empty folder: refuse at once what cannot work."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

CONTEXT = json.loads(r"""{{ cookiecutter | tojson }}""")  # the filter writes one line without three quotes in a row

NO_COPIER = f"""
This template is rendered by Copier, which is neither installed beside Cookiecutter nor on the PATH.
Each of these helps, the first two before the same command again:

  {sys.executable} -m pip install copier
  pipx inject cookiecutter copier
  pipx run copier copy {CONTEXT["_template"]} {CONTEXT["project_slug"]}
"""

if not Path.cwd().parent.samefile(CONTEXT["_output_dir"]):
    sys.exit("project_slug must be the name of one folder, without / and not . or ..; right is a name like my-flows")
if not (importlib.util.find_spec("copier") or shutil.which("copier") or shutil.which("uvx")):
    sys.exit(NO_COPIER)
