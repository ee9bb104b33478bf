"""World models: a structure behind the four verbs, over states and over pixels."""
