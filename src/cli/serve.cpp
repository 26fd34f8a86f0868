// espalier serve: an HTTP server whose model fits the memory that is free.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <istream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/file.h"
#include "cli/command.h"
#include "cli/event_output.h"
#include "cli/interrupt.h"
#include "cli/llama_flags.h"
#include "cli/number_check.h"
#include "cli/serve_limit.h"
#include "cli/serving_setup.h"
#include "model/quote.h"
#include "server/api.h"
#include "server/error_answer.h"
#include "server/http_server.h"
#include "server/metrics.h"

namespace espalier {
namespace {

struct ServeOptions {
  ServingFlags serving;
  HttpServerOptions http;
  std::vector<std::string> key_lists;  // as given
  std::vector<std::string> keys;       // what is in them and in the file
  std::string key_file;
  std::string alias;
  SamplingFlags sampling;
  int64_t n_predict = -1;
  double shutdown_timeout = 30;
  CgroupOptions cgroup;
  EventOutputOptions events;
  bool metrics = true;
};

constexpr const char* kHttp = "HTTP";

// A file of plain lines, as llama.cpp's users write them: they are serve's, without a [serve] above them.
class ServeConfig final : public CLI::ConfigTOML {
 public:
  // `file`: the option that names the file.
  ServeConfig(const CLI::App& serve, const CLI::Option& file) : serve_(serve), file_(file) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> found = CLI::ConfigTOML::from_config(input);
    for (CLI::ConfigItem& one : found) {
      if (one.parents.empty()) {
        one.parents = {"serve"};
      }
      Check(one);
    }
    return found;
  }

 private:
  void Check(const CLI::ConfigItem& one) const {
    const auto refuse = [&](const std::string& text) {
      throw CLI::ConfigError(fmt::format("{} {}: {}", file_.get_name(), file_.results().back(), text));
    };
    if (one.parents != std::vector<std::string>{"serve"}) {
      refuse(
          fmt::format("section {}: expected none, or [serve]", Quote(fmt::format("{}", fmt::join(one.parents, ".")))));
    }
    const bool is_section = one.name == "++" || one.name == "--";  // as CLI11 has their beginning and end
    if (!is_section && !IsOption(one.name)) {
      refuse(fmt::format(
          "key {}: expected the long name of an option of serve (espalier serve --help lists them), such as ctx-size",
          Quote(one.name)));
    }
  }

  // By the names that CLI11 goes on to look for.
  bool IsOption(const std::string& name) const {
    constexpr std::array<const char*, 3> kPrefixes = {"--", "-", ""};
    return std::any_of(kPrefixes.begin(), kPrefixes.end(), [&](const char* prefix) {
      const CLI::Option* option = serve_.get_option_no_throw(prefix + name);
      return option != nullptr && option->get_configurable();
    });
  }

  const CLI::App& serve_;
  const CLI::Option& file_;
};

void BindHttp(CLI::App& app, ServeOptions& o) {
  app.add_option("--host", o.http.host, "Address to listen on")->capture_default_str()->group(kHttp);
  app.add_option("--port", o.http.port, "Port to listen on; 0: any free one")
      ->check(InRange(0, 65535))
      ->capture_default_str()
      ->group(kHttp);
  app.add_option("--threads-http", o.http.threads, "Threads for connections")
      ->check(InRange(1, 256))
      ->capture_default_str()
      ->group(kHttp);
  app.add_option("--api-key", o.key_lists, "Key that clients have to send; several with commas")
      ->allow_extra_args(false)
      ->group(kHttp);
  app.add_option("--api-key-file", o.key_file, "File with a key in each line")->group(kHttp);
  app.add_option("--max-connections", o.http.max_connections, "Connections at once; beyond, they are refused")
      ->check(AtLeast(1))
      ->capture_default_str()
      ->group(kHttp);
  app.add_option("--timeout", o.http.write_seconds, "Seconds after which a client that reads nothing is given up")
      ->check(MoreThan(0))
      ->capture_default_str()
      ->group(kHttp);
  app.add_option("--shutdown-timeout", o.shutdown_timeout,
                 "Seconds for running requests to end after SIGTERM or Ctrl-C")
      ->check(AtLeast(0.0))
      ->capture_default_str()
      ->group(kHttp);
  app.add_flag("--metrics,!--no-metrics", o.metrics, "Prometheus metrics at /metrics (on by default)")->group(kHttp);
}

void BindServe(CLI::App& app, ServeOptions& o) {
  AddServingFlags(app, o.serving);
  app.add_option("-a,--alias", o.alias, "Name of the model in the API; default: the file's name");
  BindHttp(app, o);
  app.add_option("--cgroup-root", o.cgroup.root, "Where control groups are mounted")
      ->check(CLI::ExistingDirectory)
      ->capture_default_str();
  app.add_option("--event-log", o.events.file, "Append what happens to memory to this file, as JSON Lines");
  app.add_flag("--quiet", o.events.quiet, "No line on stderr for what happens to memory");
  app.add_option(
         "-n,--predict,--n-predict", o.n_predict,
         "Tokens to generate for requests that do not say; -1: OpenAI's 16 for /v1/completions, else all that fit")
      ->check(InRange(-1, INT32_MAX))
      ->capture_default_str();
  AddSamplingFlags(app, o.sampling);
  AddFlagsOfLlamaServer(app);
  // Whatever has a flag has an environment variable, too.
  for (CLI::Option* option : app.get_options()) {
    const bool has_name = !option->get_lnames().empty() && option != app.get_help_ptr();
    if (has_name && option->get_envname().empty()) {
      std::string name = "ESPALIER_" + option->get_lnames().front();
      for (char& c : name) {
        c = c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
      }
      option->envname(name);
    }
  }
}

// Whoever means to set a key and sets none, by a variable that is empty, must not get a server that is open.
Status ReadKeyLists(ServeOptions& o) {
  const char* const variable = std::getenv("ESPALIER_API_KEY");
  if (o.key_lists.empty() && variable != nullptr) {
    o.key_lists.emplace_back(variable);
  }
  for (const std::string& list : o.key_lists) {
    const size_t before = o.keys.size();
    for (std::string& key : CLI::detail::split(list, ',')) {
      if (!key.empty()) {
        o.keys.push_back(std::move(key));
      }
    }
    if (o.keys.size() == before) {
      return InvalidArgument(fmt::format("--api-key (or ESPALIER_API_KEY): expected a key, found {}", Quote(list)));
    }
  }
  return Status::Ok();
}

Status ReadKeys(ServeOptions& o) {
  ESPALIER_RETURN_IF_ERROR(ReadKeyLists(o));
  if (o.key_file.empty()) {
    return Status::Ok();
  }
  constexpr uint64_t kMostBytes = 1 * kMiB;
  ESPALIER_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(o.key_file, kMostBytes));
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string key = text.substr(at, end - at);
    while (!key.empty() && (key.back() == '\r' || key.back() == ' ')) {
      key.pop_back();
    }
    if (!key.empty()) {
      o.keys.push_back(std::move(key));
    }
    at = end + 1;
  }
  return o.keys.empty() ? InvalidArgument(fmt::format("{}: no key in it", o.key_file)) : Status::Ok();
}

std::string NameOf(const ServeOptions& o, const Model& model) {
  if (!o.alias.empty()) {
    return o.alias;
  }
  const std::string& path = model.path();
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

Served ServedOf(const ServeOptions& o, const ServingSetup& setup, const SamplerOptions& sampling) {
  Served served;
  served.model = setup.model;
  served.tokenizer = setup.tokenizer.get();
  served.base = setup.placement.survey.base;
  served.name = NameOf(o, *setup.model);
  served.context_tokens = setup.loop.request_cells;
  served.n_parallel = setup.loop.max_running;
  served.sampling = sampling;
  served.max_tokens = o.n_predict;
  for (int32_t token = 0; token < setup.tokenizer->n_vocab(); ++token) {
    served.longest_piece = std::max(served.longest_piece, setup.tokenizer->Piece(token, true).size());
  }
  served.profile = setup.placement.profile.path;
  served.created_unix =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  return served;
}

std::string Url(const ServeOptions& o, const HttpServer& http) {
  const bool v6 = o.http.host.find(':') != std::string::npos;
  return fmt::format("http://{}{}{}:{}", v6 ? "[" : "", o.http.host, v6 ? "]" : "", http.port());
}

void Announce(const ServeOptions& o, const HttpServer& http, const ServingSetup& setup, const Served& served) {
  const std::string url = Url(o, http);
  fmt::print(stderr, "espalier: {} with {} requests of {} tokens at once, policy {}\n", served.name, served.n_parallel,
             served.context_tokens, setup.placement.policy->name());
  if (!HasChatTemplate(*setup.model)) {
    fmt::print(stderr, "espalier: {} has no chat template: chats are rendered as ChatML\n", served.name);
  }
  fmt::print(stderr, "espalier: serving at {} (page: {}/, API: {}/v1)\n", url, url, url);
}

// Until somebody asks for the end, or the loop ends by itself.
void WaitForEnd(const std::atomic<bool>& stop, const std::atomic<bool>& loop_ended) {
  constexpr std::chrono::milliseconds kLook(50);
  while (!stop.load() && !loop_ended.load()) {
    std::this_thread::sleep_for(kLook);
  }
}

LoopClock::Time DeadlineIn(double seconds) {
  constexpr double kMostSeconds = 1e8;  // three years; the clock's nanoseconds end after three centuries
  return LoopClock::Time::clock::now() + std::chrono::duration_cast<LoopClock::Time::duration>(
                                             std::chrono::duration<double>(std::min(seconds, kMostSeconds)));
}

// What can only be told with the model's vocabulary.
Status CheckSampling(const ServeOptions& o, const Tokenizer& tokenizer, SamplerOptions sampling) {
  FitToContext(1, &sampling);
  const Status status = Sampler::Create(tokenizer, sampling).status();
  return status.ok() || sampling.grammar.empty()
             ? status
             : InvalidArgument(fmt::format("--grammar-file {}: {}", o.sampling.grammar_file, status.message()));
}

Status Serve(ServeOptions& o) {
  ESPALIER_RETURN_IF_ERROR(ReadKeys(o));
  ESPALIER_ASSIGN_OR_RETURN(const SamplerOptions sampling, o.sampling.Read());
  ESPALIER_ASSIGN_OR_RETURN(const std::optional<Budget> setting, ParseServedBudget(o.serving.budget));
  const InterruptFlag interrupt;

  Api api({.keys = o.keys, .metrics = o.metrics});
  o.http.error_response = HttpErrorAnswer;
  o.http.refuse = [&api](const HttpRequest& head) { return api.Refuse(head); };
  ESPALIER_ASSIGN_OR_RETURN(
      const auto http, HttpServer::Start(o.http, [&](HttpRequest request, std::shared_ptr<HttpResponder> responder) {
        api.Handle(std::move(request), std::move(responder));
      }));

  ESPALIER_ASSIGN_OR_RETURN(const Budget initial, InitialBudget(setting, o.cgroup));
  o.serving.budget.text.clear();
  ESPALIER_ASSIGN_OR_RETURN(ServingSetup setup, SetUpServing(o.serving, initial));
  ESPALIER_RETURN_IF_ERROR(CheckSampling(o, *setup.tokenizer, sampling));
  AnnouncePlacement(setup.placement);
  ServedLimit limit(setting, setup.placement.survey.base, o.cgroup);
  Served served = ServedOf(o, setup, sampling);
  const auto metrics = Metrics::Create(served.name);
  EngineLoop::Parts parts = setup.LoopParts();
  parts.limit = limit.Reader();
  parts.observer = metrics.get();
  const auto loop = EngineLoop::Create(parts, setup.loop);
  ESPALIER_ASSIGN_OR_RETURN(const auto output, EventOutput::Create(o.events, loop->events()));
  limit.WatchPressure(*loop, std::getenv("MEMORY_PRESSURE_WATCH"), std::getenv("MEMORY_PRESSURE_WRITE"));
  served.loop = loop.get();
  served.budget = &limit.sources();
  served.metrics = metrics.get();

  api.Attach(served);
  Announce(o, *http, setup, served);
  std::atomic<bool> loop_ended = false;
  std::thread watcher([&] {
    WaitForEnd(*interrupt.get(), loop_ended);
    // Connections are still taken: whoever distributes requests learns from /readyz that this one ends, and a request
    // that comes meanwhile hears so, too.
    api.Drain();
    loop->Stop(DeadlineIn(o.shutdown_timeout));
  });
  // On the thread that made the engine: OpenMP keeps a team of threads for each thread that computed something, and
  // with two teams there are more threads than cores, so that they sleep at every barrier (a fifth of the speed).
  const Status loop_status = loop->Run();
  loop_ended = true;
  watcher.join();
  limit.StopWatching();
  http->StopAccepting();
  api.Flush();  // answers that ended go out before the connections do
  http->Shutdown();
  api.Detach();
  return loop_status;
}

}  // namespace

void AddServeCommand(CLI::App& app, std::vector<Command>& commands) {
  // CLI11 reads such a file for the whole program only, so the option is the program's, and falls through to it.
  CLI::Option* const file =
      app.set_config("--config", "", "File with options for serve: lines of port = 8080 and so on")
          ->type_name("FILE")
          ->check([](const std::string& path) { return File::Open(path).status().message(); });
  app.allow_config_extras(CLI::config_extras_mode::error);
  auto* serve = app.add_subcommand("serve", "Serve a model over HTTP, within a memory budget that may change");
  serve->footer(
      "Examples:\n"
      "  espalier serve reference\n"
      "  espalier serve model.gguf --memory-budget 6GiB -np 8 -c 32768 --port 8080\n"
      "  espalier serve model.gguf --memory-budget auto --profile model.profile --max-loss 0.5\n"
      "  curl http://127.0.0.1:8080/v1/completions -d '{\"prompt\": \"The old house\", \"max_tokens\": 32}'\n"
      "  curl -X PUT http://127.0.0.1:8080/v1/espalier/budget -d '{\"memory_budget\": \"70%\"}'\n"
      "Every option NAME can also be set as ESPALIER_NAME in the environment, or as NAME = VALUE in a file for "
      "--config.\n");
  serve->fallthrough();
  app.config_formatter(std::make_shared<ServeConfig>(*serve, *file));
  AddCommand<ServeOptions>(serve, commands, BindServe, Serve);
}

}  // namespace espalier
