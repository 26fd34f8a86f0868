// A ggml RPC server on loopback, serving the CPU: stands in for a device whose memory is not ours to address.
// Usage: rpc_server PORT; it runs until it is killed, or until its parent dies.
#include <ggml-backend.h>
#include <ggml-rpc.h>
#include <sys/prctl.h>

#include <csignal>
#include <string>

int main(int argc, char** argv) {
  if (argc != 2) {
    return 2;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  ggml_backend_load_all();
  ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
  const std::string endpoint = std::string("127.0.0.1:") + argv[1];
  ggml_backend_rpc_start_server(endpoint.c_str(), nullptr, 1, 1, &cpu);
}
