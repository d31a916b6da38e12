"""What a person has to choose from: which regions the map shows, a feature made of some, the parts of a feature, what
was decided before and what comes next. Knows numbers and words, not how they are drawn.
"""
