#include "cli/cli.h"

int main(int argc, char** argv) { return espalier::RunEspalier(argc, argv); }
