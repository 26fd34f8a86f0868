// Standard output and standard error that may be full or closed.
#pragma once

#include <cstdio>

namespace espalier {

// From here on writing to stdout and stderr always seems to succeed: what cannot be written is lost. {fmt} throws where
// it cannot print, on whatever thread that is, and a server must not end because there is no room for its log.
// Files opened later never take the number of a stream that was closed.
// To be called once, before anything is printed or opened. fileno() knows nothing of them afterwards: DescriptorOf
// does.
void KeepStreamsFromFailing();

// Whether something written to stdout was lost; it is flushed first.
bool IsOutputLost();

int DescriptorOf(std::FILE* stream);

}  // namespace espalier
