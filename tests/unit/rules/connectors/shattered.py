raise ImportError("no module named `partner_sdk`")
