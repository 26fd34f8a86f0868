// The command line. Everything below this layer neither prints nor exits nor reads the environment.
#pragma once

namespace espalier {

// Runs one command. Exit code: 0 done; 1 an error, told in one line on stderr; 2 the command line itself is wrong;
// 130 stopped by Ctrl-C.
int RunEspalier(int argc, char** argv);

}  // namespace espalier
