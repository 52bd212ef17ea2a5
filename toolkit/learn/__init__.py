"""Learning: data in, a trained network and its exported form out.

::

    settings.py      what can be set, as plain dataclasses
    catalogue.py     the networks and the export formats by name
    layout.py        CIFAR-10's binary layout: read, write, look for defects
    digits.py        scikit-learn's handwritten digits in that layout
    download.py      a file over HTTP: goes on after a cut, checked by its digests
    data.py          prepare a dataset, pick held-out pictures
    curves.py        the course of a training as a picture
    recipe.py        learning rates, and what decides the bits of a training
    training_job.py  train or export in a process of its own, seen from our side
    over_ssh.py      the same on another machine
    far_side.py      what runs there besides the worker
    summaries.py     the course of a training for MLflow
    worker.py        the same, seen from the other side
    together.py      several workers that train as one

    networks.py      the networks themselves         ┐
    feeding.py       records into batches            │ these import MindSpore: only the worker
    checkpoints.py   weights and optimizer on disk   │ loads them, 2 seconds and 415 MB that no
    training.py      the loop                        │ other command has to pay
    exporting.py     ONNX, AIR, MindIR               ┘
"""
