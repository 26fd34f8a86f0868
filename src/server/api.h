// The API: which path goes where, who may ask, and what is said before the model is loaded and while the server ends.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "server/api_error.h"
#include "server/completions.h"
#include "server/http_server.h"
#include "server/served.h"

namespace espalier {

struct ApiOptions {
  std::vector<std::string> keys;  // one of them opens everything; empty: no key is asked for
  bool metrics = true;            // Prometheus metrics at /metrics
};

// Thread rule: Handle from any thread; the rest from one.
class Api {
 public:
  explicit Api(ApiOptions options);

  // HttpServerOptions::refuse: what is wrong whatever the body is, above all the key.
  std::optional<HttpResponse> Refuse(const HttpRequest& head) const;
  // HttpServer's handler.
  void Handle(HttpRequest request, std::shared_ptr<HttpResponder> responder);

  // The model is loaded: until then most answers are 503. `served` must stay until Detach.
  void Attach(const Served& served);
  // No new completions from now on: 503, as /readyz and /health; the rest goes on.
  void Drain() { draining_ = true; }
  // After the loop has ended: what it handed over last goes out.
  void Flush() { completions_->Flush(); }
  // REQUIRES: no request is being handled any more, and the loop has ended.
  void Detach();

 private:
  using Handler = std::function<void(const HttpRequest&, const std::shared_ptr<HttpResponder>&)>;
  struct Route {
    std::string method;
    std::string path;
    Handler handler;
    bool open = false;         // without a key
    bool before_load = false;  // also while loading
  };

  void AddRoutes();
  void AddOpenRoutes();
  void AddModelRoutes();
  void AddEspalierRoutes();
  void Add(const std::string& method, const std::vector<std::string>& paths, Handler handler);
  void AddCompletion(const std::vector<std::string>& paths, ApiKind kind);
  // A handler that answers at once with what `answer` returns.
  static Handler Now(std::function<HttpResponse()> answer);
  static Handler OrError(std::function<ApiResult<HttpResponse>(const HttpRequest&)> answer);
  bool Authorized(const HttpRequest& request) const;
  // Empty where the route may be taken.
  std::optional<ApiError> Refusal(const Route& route, const HttpRequest& request) const;
  // Who answers the request, or what it is answered whatever its body is.
  std::variant<const Route*, HttpResponse> Find(const HttpRequest& request) const;
  HttpResponse Health() const;

  const ApiOptions options_;
  std::vector<Route> routes_;
  std::atomic<const Served*> served_ = nullptr;
  std::unique_ptr<Completions> completions_;
  std::atomic<bool> draining_ = false;
};

// The page at "/" (page/index.html).
std::string_view PageHtml();

// Equal, in a time that does not tell where they differ.
bool EqualInConstantTime(std::string_view a, std::string_view b);

}  // namespace espalier
