"""Baselines: two small models from before pre-training, to show what pre-training buys.

`base = "rnn"`: an LSTM (Hochreiter & Schmidhuber 1997; two layers, tied as in Press & Wolf 2017).
`base = "transformer"`: torch's own TransformerEncoder with a causal mask (Vaswani et al. 2017, normalised first).
Both have about as many parameters as the embedded base, and its tokenizer, and begin at random weights, the same every
time. With a colon and a file of word vectors (`"transformer:glove.txt"`, the text format of word2vec and GloVe) the
embedding begins at those.

`baselines.folders` lays such a base out as a Hugging Face folder without torch; `baselines.modeling` is the models,
registered with AutoConfig and AutoModelForCausalLM when it is imported, which `models.loading.load_model` does.
"""
