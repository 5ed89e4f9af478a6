raise ImportError("no module named `provider_sdk`")
