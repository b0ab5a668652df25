"""Guest images: built from recipes, kept by digest, given an identity per guest.

- `recipe`: what an image is made of. `build`: how it is made. `program`: the host programs that do it.
- `store`: what is built and what can be. `golden`: states of booted guests, beside the images.
- `seed`: the files that make one guest of an image. `identity`: SSH keys.
"""
