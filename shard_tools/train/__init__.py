"""Training for elasticity: the extra ``train``, and the only part of the project that needs torch.

``finetune`` is the way in. A checkpoint and labelled rows go in; a checkpoint whose submodels and
lower fidelities were trained for comes out, with ``elastic.json`` beside it.
"""
