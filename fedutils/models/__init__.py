"""Models that train centrally and in federations alike: no state beside the trainable weights."""
