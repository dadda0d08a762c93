// A node of an Umbel federation in C++: linear regression by gradient descent on the rows of a CSV file.
// Written from docs/wire.md and proto/umbel/v1 alone, and in their words.
// client ADDRESS NAME APP ROWS.csv STATE

#include <sys/stat.h>

#include <deque>
#include <map>

#include "regression.hpp"
#include "server.hpp"

// Tasks, one after the other

struct Work {
  wire::Task task;
  wire::ReportRequest report;
  string asked, arrays;  // the task without its deadline; of the update
  std::atomic<bool> dropped = false, done = false;
};

class Desk {
 public:
  Desk(Server& server, const Regression& app) : server_(server), app_(app) {}

  void hear(const wire::SubscribeResponse& notice) {
    std::lock_guard lock(mutex_);
    for (const auto& id : notice.revoke().tasks()) drop(id);
    if (!notice.has_task()) return;
    const auto& id = notice.task().id();
    auto asked = notice.task();
    asked.clear_deadline();
    auto before = works_.find(place(id));
    if (before == works_.end() || before->second->asked != asked.SerializeAsString()) {
      drop(id);
      std::erase_if(works_, [](const auto& named) { return named.second->done.load(); });
      works_[place(id)] = std::make_shared<Work>();
      works_[place(id)]->task = notice.task();
      works_[place(id)]->asked = asked.SerializeAsString();
    }
    queue_.push_back(works_[place(id)]);  // if it is there already, it is reported once more
    ready_.notify_one();
  }

  void work() {
    for (;;) {
      std::unique_lock lock(mutex_);
      ready_.wait(lock, [&] { return !queue_.empty(); });
      auto work = queue_.front();
      queue_.pop_front();
      lock.unlock();
      if (!work->report.has_id()) perform(*work);
      deliver(*work);
      work->done = true;
    }
  }

 private:
  static string place(const wire::TaskId& id) { return id.run() + "/" + std::to_string(id.exchange()); }

  void drop(const wire::TaskId& id) {
    auto found = works_.find(place(id));
    if (found == works_.end()) return;
    found->second->dropped = true;
    works_.erase(found);
  }

  void perform(Work& work) {
    const auto& task = work.task;
    std::cout << task.kind() << " " << task.id().run() << " " << task.round() << std::endl;
    auto began = Clock::now();
    auto& report = work.report;
    *report.mutable_id() = task.id();
    try {
      if (task.needs_size()) throw Failed("refused", "this client cannot do what the task needs: " + task.needs(0));
      if (task.kind() == "query") throw Failed("handler-missing", "this client answers no queries");
      string arrays = server_.download(task.model());
      bool trains = task.kind() == "train";
      double loss = trains ? app_.train(arrays, task.config(), work.dropped) : app_.evaluate(arrays);
      string metrics = "{\"loss\": " + std::to_string(loss) + "}";
      if (trains) {
        auto& update = *report.mutable_update();
        update.set_kind("model");
        update.set_weight(app_.examples());
        update.set_metrics(metrics);
        update.mutable_arrays()->set_digest(sha256(arrays));
        update.mutable_arrays()->set_size(arrays.size());
        work.arrays = arrays;
      } else {
        report.mutable_metrics()->set_weight(app_.examples());
        report.mutable_metrics()->set_metrics(metrics);
      }
    } catch (const Failed& error) {
      report.mutable_failure()->set_code(error.word);
      report.mutable_failure()->set_message(error.what());
    } catch (const CallFailed& error) {
      work.dropped = true;  // the model is not for this node any more: the task is over
    }
    report.set_seconds(std::chrono::duration<double>(Clock::now() - began).count());
  }

  void deliver(Work& work) {
    auto send = [&](Session& session) {
      if (work.dropped) return;
      auto report = work.report;
      if (!work.arrays.empty()) {
        auto& blob = *report.mutable_update()->mutable_arrays();
        bool large = work.arrays.size() > session.opened.inline_();
        if (large) server_.upload(work.arrays, blob.digest(), session);
        if (!large) blob.set_content(work.arrays);
      }
      server_.ask(session, &Stub::Report, report, "Report");
    };
    for (int tries = 0; tries < 2; tries++) {  // the end of an upload that broke off may have been on its way
      try {
        return server_.steadily(send, true);
      } catch (const CallFailed& error) {
        std::cout << "not accepted: " << error.status.error_message() << std::endl;
        if (tries == 1) give_up(work.task.id(), error.status.error_message());
      }
    }
  }

  void give_up(const wire::TaskId& id, const string& why) {  // the round waits for an answer
    wire::ReportRequest report;
    *report.mutable_id() = id;
    report.mutable_failure()->set_code("rejected");
    report.mutable_failure()->set_message(why);
    report.mutable_failure()->set_retryable(true);
    try {
      server_.steadily([&](Session& session) { server_.ask(session, &Stub::Report, report, "Report"); });
    } catch (const CallFailed& error) {
      std::cout << "not accepted: " << error.status.error_message() << std::endl;
    }
  }

  Server& server_;
  const Regression& app_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::map<string, std::shared_ptr<Work>> works_;  // by run and exchange
  std::deque<std::shared_ptr<Work>> queue_;
};

int main(int count, char** arguments) {
  if (count != 6) {
    std::cerr << "client ADDRESS NAME APP ROWS.csv STATE" << std::endl;
    return 2;
  }
  umask(077);
  std::filesystem::create_directories(arguments[5]);
  try {
    Regression app(arguments[4]);
    Server server(arguments[1], arguments[2], arguments[3], arguments[5]);
    Desk desk(server, app);
    std::thread([&desk] { desk.work(); }).detach();
    auto hear = [&desk](const wire::SubscribeResponse& notice) { desk.hear(notice); };
    int refused = 0;  // how often no session could be opened, one after the other
    for (Backoff backoff;;) {
      double wait = 0;
      auto began = Clock::now();
      try {
        wait = server.attend(hear);
        refused = 0;
      } catch (const CallFailed& error) {
        bool unknown = error.status.error_code() == grpc::UNAUTHENTICATED;
        if (!error.again() || (unknown && ++refused == 2)) throw;
        std::cout << "not connected: " << error.status.error_message() << std::endl;
      }
      if (Clock::now() - began > std::chrono::seconds(10)) backoff = Backoff();
      pause(std::max(wait, backoff.next()));
    }
  } catch (const CallFailed& error) {
    std::cerr << error.status.error_message() << std::endl;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
  }
  _Exit(1);  // the thread of the desk may be in the midst of a task
}
