// A device with memory of its own (ggml's RPC backend on loopback): the device-buffer store, bit-exact.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <thread>

#include "runtime/engine.h"
#include "support/engines.h"
#include "support/models.h"

namespace espalier::test {
namespace {

sockaddr_in Loopback(int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof address;
  bind(fd, reinterpret_cast<sockaddr*>(&address), size);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  close(fd);
  return ntohs(address.sin_port);
}

// The server in a process of its own: a network error inside ggml ends the process it happens in.
class RpcServer {
 public:
  RpcServer() : port_(FreePort()) {
    pid_ = fork();
    if (pid_ == 0) {
      [[maybe_unused]] const auto* quiet = std::freopen("/dev/null", "w", stdout);
      execl(ESPALIER_RPC_SERVER, ESPALIER_RPC_SERVER, std::to_string(port_).c_str(), nullptr);
      _exit(127);
    }
  }
  ~RpcServer() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  // False if it does not listen within ten seconds.
  bool Listening() const {
    for (int i = 0; i < 200; ++i) {
      const int fd = socket(AF_INET, SOCK_STREAM, 0);
      const sockaddr_in address = Loopback(port_);
      const bool connected = connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
      close(fd);
      if (connected) {
        return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return false;
  }
  std::string device() const { return "RPC:127.0.0.1:" + std::to_string(port_); }

 private:
  int port_;
  pid_t pid_ = -1;
};

TEST(RpcDevice, ComputesTheBitsOfTheHostThroughReleaseAndRestore) {
  const RpcServer server;
  ASSERT_TRUE(server.Listening());
  const auto model = OpenOrFail(TwinAt("Q8_0"));
  EngineOptions options = ExactOptions();
  options.repack = false;  // the server gives its ordinary buffers
  options.n_ctx = 512;
  options.max_sequences = 2;
  const Plan dense = Plan::Dense(model->n_layer());
  auto host = OpenEngine(model, options, dense);
  options.device = server.device();
  auto device = OpenEngine(model, options, dense);
  ASSERT_NE(device, nullptr);

  const auto tokens = SomeTokens(60, model->hparams().n_vocab);
  EXPECT_EQ(MaxDifference(DecodeAll(*host, 0, tokens), DecodeAll(*device, 0, tokens)), 0.0);

  auto plan = Plan::ParseDrop("a1,f2,a4,f4", model->n_layer());
  ASSERT_TRUE(plan.ok());
  const uint64_t weights = device->memory_in_use().weight_bytes;
  for (int cycle = 0; cycle < 3; ++cycle) {
    for (Engine* engine : {host.get(), device.get()}) {
      ASSERT_TRUE(engine->Apply(*plan).ok());
    }
    EXPECT_LT(device->memory_in_use().weight_bytes, weights);
    EXPECT_EQ(device->memory_in_use().weight_bytes,
              PredictFootprint(device->memory_model(), *plan, {1, 60, 60}).weight_bytes);
    const std::span<const int32_t> one(tokens.data() + cycle, 1);
    EXPECT_EQ(MaxDifference(DecodeAll(*host, 0, one), DecodeAll(*device, 0, one)), 0.0);
    for (Engine* engine : {host.get(), device.get()}) {
      ASSERT_TRUE(engine->Apply(dense).ok());
      ASSERT_TRUE(engine->Reprefill(0).ok());
    }
    EXPECT_EQ(device->memory_in_use().weight_bytes, weights);
  }
  // The second slot while the first is freed.
  for (Engine* engine : {host.get(), device.get()}) {
    DecodeLast(*engine, 1, std::span(tokens).first(20));
    engine->RemoveSequence(0);
  }
  EXPECT_EQ(MaxDifference(DecodeAll(*host, 1, tokens), DecodeAll(*device, 1, tokens)), 0.0);
}

TEST(RpcDevice, NobodyThereIsAClearError) {
  EngineOptions options;
  options.device = "RPC:127.0.0.1:1";
  const auto engine = Engine::Create(OpenOrFail(TwinPath()), options, Plan::Dense(6));
  ASSERT_FALSE(engine.ok());
  EXPECT_NE(engine.status().message().find("RPC:127.0.0.1:1"), std::string::npos) << engine.status().message();
}

}  // namespace
}  // namespace espalier::test
