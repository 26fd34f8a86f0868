// What tells one model from another: profiles are bound to a model by it.
#pragma once

#include <string>

#include "base/status.h"
#include "model/model.h"

namespace espalier {

// 32 hexadecimal digits (XXH3, 128 bits) over the metadata that bears on results (hyper-parameters, vocabulary; not
// general.name and other descriptive keys), the tensor table (names, types, shapes) and samples of every tensor's data
// (its first and last 4 KiB and 16 pages spread between: a 4 GB model takes a few ms). Two files that differ only in
// names, key order, alignment or tensor order have the same fingerprint; a requantised, pruned or fine-tuned one has
// another.
// Fails with kIo if the file cannot be read.
Result<std::string> Fingerprint(const Model& model);

}  // namespace espalier
