/** Echo over Spark's own RPC: `run` beside this file compiles and starts it.
  *
  * It lives in a package below org.apache.spark because RpcEnv is `private[spark]`. Nothing of Spark is changed.
  *
  * Chosen for speed, within what Spark offers:
  *   - The reply is handled on the thread that decoded it, which also sends the next ask: no thread is handed anything.
  *   - The message is a bare array of bytes, the least that Java serialisation (there is no other) has to write.
  *   - One thread for I/O and, as each process has one CPU, as few for dispatch as Spark allows (it asks for at least 2
  *     by default, but takes a setting of 1). I/O by epoll, which has been the default on Linux since Spark 4.1.
  *   - Netty sets TCP_NODELAY on both sides by itself.
  */
package org.apache.spark.rpc.peers

import java.nio.ByteBuffer
import java.util.Arrays
import java.util.concurrent.{CompletableFuture, TimeUnit}

import scala.concurrent.ExecutionContext.parasitic
import scala.util.{Failure, Success}

import org.apache.spark.{SecurityManager, SparkConf}
import org.apache.spark.launcher.JavaModuleOptions
import org.apache.spark.rpc.{RpcAddress, RpcCallContext, RpcEndpointRef, RpcEnv, ThreadSafeRpcEndpoint}

class EchoEndpoint(override val rpcEnv: RpcEnv) extends ThreadSafeRpcEndpoint {
  override def receiveAndReply(context: RpcCallContext): PartialFunction[Any, Unit] = {
    case payload: Array[Byte] => context.reply(payload)
  }
}

/** Round trips between opening and closing, in nanoseconds. Grows during the warm-up, not while it counts. */
final class Meter(warmNanos: Long, steadyNanos: Long) {
  private var latencies = new Array[Long](1 << 20)
  private var count = 0
  private val opens = System.nanoTime() + warmNanos
  private var opened = 0L
  private var last = 0L

  /** Counts one round trip; false means the time is over. */
  def record(sent: Long, now: Long): Boolean = {
    if (opened == 0) {
      if (now - opens >= 0) { opened = now; last = now }
      true
    } else if (last - opened >= steadyNanos) {
      false
    } else {
      if (count == latencies.length) latencies = Arrays.copyOf(latencies, count * 2)
      latencies(count) = now - sent
      count += 1
      last = now
      last - opened < steadyNanos
    }
  }

  def sample(): Sample = {
    require(count > 0, "no round trip finished in the time given; try a larger --seconds")
    val sorted = Arrays.copyOf(latencies, count)
    Arrays.sort(sorted)
    new Sample(sorted, count / ((last - opened) / 1e9))
  }
}

final class Sample(sorted: Array[Long], val rate: Double) {
  def at(quantile: Double): Long = {
    val rank = math.ceil(quantile * sorted.length).toInt.max(1)
    sorted(rank - 1)
  }
  def max: Long = sorted.last
}

/** As many asks in flight as `window` says, until the time is over. */
final class Asking(echo: RpcEndpointRef, window: Int, warmNanos: Long, steadyNanos: Long) {
  private val done = new CompletableFuture[Meter]
  // Asks start on the main thread, replies come on Netty's: they share it under this lock, which is free nearly always.
  private val meter = new Meter(warmNanos, steadyNanos)
  private var flying = window
  private var over = false

  def run(): Sample = {
    for (lane <- 0 until window) ask(lane.toLong << 40, System.nanoTime())
    done.get(60 + TimeUnit.NANOSECONDS.toSeconds(warmNanos + steadyNanos), TimeUnit.SECONDS).sample()
  }

  private def ask(number: Long, sent: Long): Unit = {
    val payload = new Array[Byte](Echo.Payload)
    val numbers = ByteBuffer.wrap(payload)
    while (numbers.hasRemaining) numbers.putLong(number)
    echo.ask[Array[Byte]](payload).onComplete {
      case Success(answer) if Arrays.equals(answer, payload) =>
        val now = System.nanoTime()
        if (goesOn(sent, now)) ask(number + 1, now)
      case Success(_) => done.completeExceptionally(new IllegalStateException("an answer differs from what was asked"))
      case Failure(error) => done.completeExceptionally(error)
    }(parasitic)
  }

  private def goesOn(sent: Long, now: Long): Boolean = synchronized {
    over = over || !meter.record(sent, now)
    if (over) {
      flying -= 1
      if (flying == 0) done.complete(meter)
    }
    !over
  }
}

object Echo {
  val Payload = 64
  private val Windows = Seq(1, 64, 512)

  def main(arguments: Array[String]): Unit = arguments match {
    case Array("options") => println(JavaModuleOptions.defaultModuleOptions())
    case Array("server") => serve()
    case Array("client", port, rounds, seconds, warm, first) =>
      measure(port.toInt, rounds.toInt, seconds.toDouble, warm.toDouble, first.toDouble)
  }

  private def env(name: String, clientMode: Boolean): RpcEnv = {
    val conf = new SparkConf(false)
      .set("spark.rpc.io.mode", "EPOLL")
      .set("spark.rpc.io.threads", "1")
      .set("spark.rpc.netty.dispatcher.numThreads", "1")
    RpcEnv.create(name, "127.0.0.1", "127.0.0.1", 0, conf, new SecurityManager(conf), 1, clientMode)
  }

  private def serve(): Unit = {
    val server = env("server", clientMode = false)
    server.setupEndpoint("echo", new EchoEndpoint(server))
    println(server.address.port)
    server.awaitTermination()
  }

  /** Prints one line of figures per round and window: window, rate, p50, p90, p99, p999, p9999, max. */
  private def measure(port: Int, rounds: Int, seconds: Double, warm: Double, first: Double): Unit = {
    def nanos(seconds: Double) = (seconds * 1e9).toLong
    val client = env("client", clientMode = true)
    val echo = client.setupEndpointRef(RpcAddress("127.0.0.1", port), "echo")
    // Until the compiler has done its work, on both sides and for every window.
    for (window <- Windows) new Asking(echo, window, nanos(first / Windows.size), 1).run()
    for (_ <- 1 to rounds; window <- Windows) {
      val sample = new Asking(echo, window, nanos(warm), nanos(seconds)).run()
      val latencies = Seq(0.5, 0.9, 0.99, 0.999, 0.9999).map(sample.at) :+ sample.max
      println(s"$window ${sample.rate.round} ${latencies.mkString(" ")}")
    }
    client.shutdown()
  }
}
