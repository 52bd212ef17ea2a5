"""Huawei Cloud: files in OBS (``obs``, ``transfer``, ``locate``), training in ModelArts (``modelarts``,
``jobs``).

Both SDKs are an extra (``pip install -e .[cloud]``) and are imported only when they are needed; nothing else
in the toolkit imports them. ``boot`` is what a training job runs, ``notebook`` the same stages for a
ModelArts notebook.
"""
