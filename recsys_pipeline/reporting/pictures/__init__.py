"""Pictures for the UI, the warehouse and the model card: a module a subject, and one for their style.

Each function takes tables or arrays and returns a `Sheet`, or None where there is nothing to see; `rendered`
makes a `Picture` of it. The same input gives the same bytes. Matplotlib is loaded by the first picture.
"""
