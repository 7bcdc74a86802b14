"""The embedding model, its configuration and its processor: the files that are shipped beside the weights.

Importing this room registers the classes with the Auto classes of transformers and marks them for shipping, so that
``save_pretrained`` copies this folder's files beside the weights.
"""

from transformers import AutoConfig, AutoModel, AutoProcessor

from .configuration_phi3_v import Phi3VConfig
from .configuration_xvlm2vec import XVLM2VecConfig
from .modeling_xvlm2vec import XVLM2VecModel
from .processing_xvlm2vec import XVLM2VecProcessor

AutoConfig.register("xvlm2vec", XVLM2VecConfig, exist_ok=True)
AutoConfig.register(Phi3VConfig.model_type, Phi3VConfig, exist_ok=True)  # not that of a release loaded before
AutoModel.register(XVLM2VecConfig, XVLM2VecModel, exist_ok=True)
AutoProcessor.register(XVLM2VecConfig, XVLM2VecProcessor, exist_ok=True)
XVLM2VecConfig.register_for_auto_class()
XVLM2VecModel.register_for_auto_class("AutoModel")
XVLM2VecProcessor.register_for_auto_class("AutoProcessor")
