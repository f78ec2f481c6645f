"""The decision whether a challenger takes over, and when to retrain."""
