// What must hold of the tokenizer's metadata before libllama builds a tokenizer from it. libllama answers some of these
// mistakes with an abort of the process, or disables a special token in silence.
#pragma once

#include "base/status.h"
#include "model/gguf_file.h"

namespace espalier {

// Checks the keys tokenizer.ggml.*: a tokenizer of kind "llama" (SentencePiece) or "gpt2" (BPE), tokens that differ,
// scores and types as many as tokens, byte tokens well formed, merges of two parts, special tokens inside the
// vocabulary. The error names the key, what was expected and what was found.
Status CheckVocabulary(const GgufFile& file);

}  // namespace espalier
