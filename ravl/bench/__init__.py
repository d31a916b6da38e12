"""`make bench`: what things cost, as ratios measured in one run on this machine. Nothing is asserted here.

`stages`  embedding, clustering and a training step on the demo.
`steps`   a training step of models as large as CLIP's, with and without the regions, on any device.
`audits`  whole audits of such models, and of large image sets: seconds by stage, and memory.
"""
