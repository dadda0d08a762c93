// A node's side of the wire: its key, its session, its calls, its blobs.

#pragma once

#include <grpcpp/grpcpp.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>
#include <thread>

#include "umbel/v1/node.grpc.pb.h"

namespace wire = umbel::v1;
using Stub = wire::NodeService::Stub;
using Clock = std::chrono::steady_clock;
using std::string;

struct CallFailed {
  grpc::Status status;
  bool full;
  bool again() const {
    auto code = status.error_code();
    return full || code == grpc::UNAVAILABLE || code == grpc::DEADLINE_EXCEEDED || code == grpc::CANCELLED ||
           code == grpc::INTERNAL || code == grpc::UNKNOWN || code == grpc::UNAUTHENTICATED;
  }
};

inline void check(const grpc::Status& status, const grpc::ClientContext& context) {
  if (status.ok()) return;
  auto fields = context.GetServerTrailingMetadata();
  auto code = fields.find("umbel-code");
  throw CallFailed{status, code != fields.end() && code->second == "disk-full"};
}

// Bytes, the key

inline unsigned char* raw(const string& text) {
  return reinterpret_cast<unsigned char*>(const_cast<char*>(text.data()));
}

inline string sha256(const string& bytes) {
  string digest(32, '\0');
  EVP_Digest(bytes.data(), bytes.size(), raw(digest), nullptr, EVP_sha256(), nullptr);
  return digest;
}

inline string swapped(string text, const string& from, const string& to) {
  for (char& c : text) {
    if (size_t i = from.find(c); i != string::npos) c = to[i];
  }
  return text;
}

inline string from_base64(const string& text) {
  string padded = swapped(text, "-_", "+/") + string((4 - text.size() % 4) % 4, '='), bytes(padded.size(), '\0');
  int size = EVP_DecodeBlock(raw(bytes), raw(padded), padded.size());
  return bytes.substr(0, std::max<int>(0, size - (padded.size() - text.size())));
}

inline string to_base64(const string& bytes) {
  string text(bytes.size() * 2 + 4, '\0');
  text.resize(EVP_EncodeBlock(raw(text), raw(bytes), bytes.size()));
  return text;
}

inline EVP_PKEY* kept_key(const string& file) {
  if (!std::filesystem::exists(file)) {
    FILE* out = fopen((file + ".new").c_str(), "w");
    PEM_write_PrivateKey(out, EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"), nullptr, nullptr, 0, nullptr, nullptr);
    fclose(out);
    std::filesystem::rename(file + ".new", file);
  }
  FILE* in = fopen(file.c_str(), "r");
  EVP_PKEY* key = PEM_read_PrivateKey(in, nullptr, nullptr, nullptr);
  fclose(in);
  return key;
}

inline string signature(EVP_PKEY* key, const string& text) {
  string bytes(64, '\0');
  size_t size = bytes.size();
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  EVP_DigestSignInit(context, nullptr, nullptr, nullptr, key);
  EVP_DigestSign(context, raw(bytes), &size, raw(text), text.size());
  EVP_MD_CTX_free(context);
  return bytes;
}

// Sessions and calls

struct Backoff {
  Clock::time_point begun = Clock::now();
  std::mt19937 random{std::random_device{}()};
  double later = 0;
  double next() {
    double wait = later * std::uniform_real_distribution<>(0.5, 1.0)(random);
    later = later == 0 ? 0.1 : std::min(later * 2, Clock::now() - begun < std::chrono::minutes(1) ? 1.0 : 30.0);
    return wait;
  }
};

inline void pause(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

struct Session {
  std::unique_ptr<Stub> stub;
  wire::OpenSessionResponse opened;
  std::atomic<uint64_t> counter{0};
  grpc::ClientContext stream;  // of Subscribe
};

class Server {
 public:
  Server(const string& address, const string& name, const string& app, const string& state)
      : name_(name), app_(app), joined_(state + "/federation"), key_(kept_key(state + "/key.pem")) {
    size_t slash = address.rfind('/');
    string bytes = from_base64(address.substr(slash + 1)), body = bytes.substr(0, std::max<int>(bytes.size() - 4, 0));
    if (address.rfind("umbel://", 0) || body.size() < 17 || body[0] != 1 || bytes != body + sha256(body).substr(0, 4)) {
      throw std::runtime_error("the address was cut off or mistyped, or is of a later version: ask for it again");
    }
    target_ = address.substr(8, slash - 8);
    if (target_.find(':', target_.find(']') + 1) == string::npos) target_ += ":8443";
    string pem = "-----BEGIN CERTIFICATE-----\n" + to_base64(body.substr(17)) + "\n-----END CERTIFICATE-----\n";
    if (body.size() > 17) authority_ = pem;
    ticket_ = swapped(to_base64(body.substr(1, 16)), "+/", "-_").substr(0, 22);
  }

  // Messages have no maps, so protobuf serializes one to the same bytes again when it is sent.
  template <class Message>
  void sign(grpc::ClientContext& context, Session& session, const string& call, const Message& message) {
    uint64_t counter = ++session.counter;
    string id = session.opened.session(), text = "umbel.v1 call\n" + id;
    for (int shift = 56; shift >= 0; shift -= 8) text += static_cast<char>(counter >> shift);
    text += sha256(message.SerializeAsString()) + "/umbel.v1.NodeService/" + call;
    context.AddMetadata("umbel-session-bin", id);
    context.AddMetadata("umbel-counter", std::to_string(counter));
    context.AddMetadata("umbel-signature-bin", signature(key_, text));
  }

  template <class Question, class Answer>
  Answer ask(Session& session, grpc::Status (Stub::*call)(grpc::ClientContext*, const Question&, Answer*),
             const Question& question, const string& name = "") {  // signed if it has a name
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    if (!name.empty()) sign(context, session, name, question);
    Answer answer;
    check((session.stub.get()->*call)(&context, question, &answer), context);
    return answer;
  }

  // One session, from its opening to its end; gives the seconds that the server wants to be left alone for.
  template <class Heard>
  double attend(const Heard& heard) {
    auto session = open();
    sign(session->stream, *session, "Subscribe", wire::SubscribeRequest());
    auto reader = session->stub->Subscribe(&session->stream, wire::SubscribeRequest());
    std::cout << "connected" << std::endl;
    change(session);
    double wait = -1;
    for (wire::SubscribeResponse notice; wait < 0 && reader->Read(&notice);) {
      heard(notice);
      if (notice.has_goodbye()) wait = notice.goodbye().wait();
    }
    change(nullptr);
    if (wait >= 0) session->stream.TryCancel();
    auto status = reader->Finish();
    if (wait < 0 && status.error_code() != grpc::UNAUTHENTICATED) check(status, session->stream);
    return std::max(0.0, wait);
  }

  // Make calls in the open session until they are known to have arrived.
  template <class Calls>
  void steadily(const Calls& calls, bool even_if_not_found = false) {
    for (Backoff backoff;;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return session_ != nullptr; });
      auto session = session_;
      lock.unlock();
      try {
        return calls(*session);
      } catch (const CallFailed& error) {
        auto code = error.status.error_code();
        if (!error.again() && !(even_if_not_found && code == grpc::NOT_FOUND)) throw;
        if (code == grpc::UNAUTHENTICATED) session->stream.TryCancel();  // another is opened then
        pause(error.full ? 60 : backoff.next());
      }
    }
  }

  string download(const wire::Blob& blob) {
    if (kept_digest_ == blob.digest()) return kept_;  // other tasks of its round name it, too
    string bytes = blob.content();
    auto read = [&](Session& session) {
      wire::ReadBlobRequest request;
      request.set_digest(blob.digest());
      request.set_offset(bytes.size());  // go on where it broke off
      grpc::ClientContext context;
      sign(context, session, "ReadBlob", request);
      auto reader = session.stub->ReadBlob(&context, request);
      for (wire::ReadBlobResponse part; reader->Read(&part);) bytes += part.data();
      check(reader->Finish(), context);
    };
    if (!blob.has_content()) steadily(read);
    // Its digest is BLAKE3, of which Debian 12 has no library: that nobody has changed the bytes, TLS has checked.
    if (bytes.size() != blob.size()) throw Failed("client-failed", "the model is not whole");
    kept_digest_ = blob.digest();
    return kept_ = bytes;
  }

  void upload(const string& bytes, const string& digest, Session& session) {
    wire::StatBlobRequest question;
    question.set_digest(digest);
    auto there = ask(session, &Stub::StatBlob, question, "StatBlob");
    if (there.complete()) return;
    wire::WriteBlobRequest message;
    message.mutable_head()->set_digest(digest);
    message.mutable_head()->set_size(bytes.size());
    message.mutable_head()->set_offset(there.received());
    grpc::ClientContext context;
    sign(context, session, "WriteBlob", message);
    wire::WriteBlobResponse answer;
    auto writer = session.stub->WriteBlob(&context, &answer);
    size_t start = there.received(), chunk = session.opened.chunk();
    for (bool more = writer->Write(message); more && start < bytes.size(); start += chunk) {
      message.clear_head();
      message.set_data(bytes.substr(start, chunk));
      more = writer->Write(message);
    }
    writer->WritesDone();
    check(writer->Finish(), context);  // if it is not complete, Report says NOT_FOUND
  }

 private:
  // Each session has a channel of its own: one that could not connect may wait long before it tries again.
  std::unique_ptr<Stub> stub() const {
    grpc::ChannelArguments arguments;
    arguments.SetInt("grpc.use_local_subchannel_pool", 1);
    arguments.SetInt("grpc.keepalive_time_ms", 30000);
    arguments.SetInt("grpc.keepalive_timeout_ms", 20000);
    arguments.SetInt("grpc.keepalive_permit_without_calls", 1);
    arguments.SetInt("grpc.http2.max_pings_without_data", 0);
    auto credentials = grpc::SslCredentials({authority_, "", ""});
    return wire::NodeService::NewStub(grpc::CreateCustomChannel(target_, credentials, arguments));
  }

  std::shared_ptr<Session> open() {
    auto session = std::make_shared<Session>();
    session->stub = stub();
    if (!std::filesystem::exists(joined_)) {
      wire::EnrolRequest enrol;
      enrol.set_ticket(ticket_);
      enrol.set_name(name_);
      size_t size = 32;
      enrol.set_public_key(string(size, '\0'));
      EVP_PKEY_get_raw_public_key(key_, raw(enrol.public_key()), &size);
      std::ofstream(joined_) << ask(*session, &Stub::Enrol, enrol).federation();
    }
    wire::ChallengeRequest request;
    request.set_name(name_);
    wire::OpenSessionRequest opening;
    opening.set_name(name_);
    opening.set_challenge(ask(*session, &Stub::Challenge, request).challenge());
    opening.set_signature(signature(key_, "umbel.v1 session\n" + name_ + "\n" + opening.challenge()));
    opening.add_versions(1);
    opening.set_program("client.cpp, gRPC " + grpc::Version());
    opening.add_apps()->set_name(app_);
    opening.set_slots(1);
    opening.set_time(std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count());
    session->opened = ask(*session, &Stub::OpenSession, opening);
    return session;
  }

  void change(const std::shared_ptr<Session>& session) {
    std::lock_guard lock(mutex_);
    session_ = session;
    changed_.notify_all();
  }

  string name_, app_, joined_, target_, ticket_, authority_, kept_digest_, kept_;
  EVP_PKEY* key_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<Session> session_;  // the open one
};
