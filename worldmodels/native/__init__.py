"""One step of a small model without torch: recorded once, compiled through LLVM, for few rows."""
