// Random numbers that are the same with every standard library, unlike those of std::uniform_real_distribution.
#pragma once

#include <random>

namespace espalier {

// In [0, 1), evenly.
inline double Uniform(std::mt19937_64* random) { return static_cast<double>((*random)() >> 11) * 0x1p-53; }

}  // namespace espalier
