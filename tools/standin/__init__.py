"""A stand-in for a trained video language model, where no model hub can be reached.

SmolLM2-135M-Instruct and a DINOv2-S/14 backbone, both trained and both from PyPI, put together as a LLaVA-OneVision model: a
folder that transformers loads like any other, 64 tokens a frame. What joins the two is not trained: features are standardised
channel by channel, and carried into the language model's embedding space by a fixed random map with orthonormal columns. So
its cache has the statistics of video and of a trained language model, and its answers have nothing to do with the video.
"""
