"""Discovery: which local image features make a vision-language model misclassify (Varma et al. 2024, arXiv 2411.04097).

The stages, in the order of an audit; each takes records of `ravl.tables` and returns one:

regions     images are cut into a grid of regions                       -> Regions
embedding   images and regions become vectors                           -> .npy arrays
zero_shot   image and region scores for the classes named in text       -> ZeroShot
clustering  regions that look alike form a feature                      -> Clustering
scoring     which features the errors depend on: influence and gap      -> FeatureScores
removal     how much of an error each region causes                     -> Exemplars
projection  a two-dimensional map of all regions, for looking at        -> (R, 2) array

Nothing here imports torch: the model is an argument, a `ravl.vlm.interface.VisionLanguageModel` that answers in numpy.
"""
