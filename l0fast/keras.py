"""Modules of l0fast as Keras 3 layers, on Keras' torch backend (``KERAS_BACKEND=torch``; extra ``keras``)."""

import keras

from .activity import collect_regularization_losses

if keras.backend.backend() != "torch":
    raise ImportError(
        f"l0fast.keras: expected Keras' torch backend (KERAS_BACKEND=torch), got {keras.backend.backend()}"
    )


@keras.saving.register_keras_serializable(package="l0fast")
class L0Module(keras.layers.TorchModuleWrapper):
    """A layer that runs a module and adds the losses of its L0 gates to the model's: ``L0Module(L0Activation(64))``.

    Args:
        module: any module that :func:`l0fast.collect_regularization_losses` finds gates in; its parameters become the
            layer's weights, and Keras' ``training`` its mode.
        name: as in every Keras layer.

    Raises:
        TypeError: module is no torch.nn.Module. ImportError, at import: Keras runs on another backend than torch.
    """

    def call(self, *args, training=None, **kwargs):
        result = super().call(*args, training=training, **kwargs)
        for loss in collect_regularization_losses(self.module):
            self.add_loss(loss)
        return result
