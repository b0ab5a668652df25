"""Guest images: built from recipes, kept by digest, given an identity per guest.

store: what is built and what can be; build: how; seed and identity: what makes one guest of an image.
"""
