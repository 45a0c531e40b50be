"""Claims about the assets, one module a stage; `claims` has their form, and `past` what earlier runs say."""
