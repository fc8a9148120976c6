// What the smoke test's pods run: one static program that serves, asks and reports.
//
//	probe serve               HTTP on 8080: the pod's name and $VERSION; 503 in its first two seconds; /crash ends the process
//	probe get URL [TIMES]     print the distinct answers
//	probe ask URL SECONDS     ask all the time and count: "N ok, N failed, versions [...]"
//	probe api                 the API server's version, with the pod's own token
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"
)

// One connection for each request, so that each is balanced anew.
var client = &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func main() {
	arguments := append(os.Args[1:], "", "")
	switch arguments[0] {
	case "serve":
		serve()
	case "get":
		get(arguments[1], max(1, number(arguments[2])))
	case "ask":
		ask(arguments[1], time.Duration(number(arguments[2]))*time.Second)
	case "api":
		api()
	default:
		check(fmt.Errorf("probe: serve, get, ask or api"))
	}
}

func serve() {
	name, started := must(os.Hostname()), time.Now()
	http.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		if time.Since(started) < 2*time.Second {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintf(w, "%s v%s\n", name, os.Getenv("VERSION"))
	})
	fmt.Println("serving")
	check(http.ListenAndServe(":8080", nil))
}

func get(url string, times int) {
	seen := map[string]bool{}
	for range times {
		seen[must(fetch(url))] = true
	}
	fmt.Println(strings.Join(sorted(seen), "\n"))
}

func ask(url string, period time.Duration) {
	ok, failed, versions := 0, 0, map[string]bool{}
	for end := time.Now().Add(period); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		answer, err := fetch(url)
		if err != nil {
			failed++
			fmt.Println(err)
			continue
		}
		ok++
		versions[answer[strings.LastIndex(answer, " ")+1:]] = true
	}
	fmt.Printf("%d ok, %d failed, versions %v\n", ok, failed, sorted(versions))
}

func api() {
	const folder = "/var/run/secrets/kubernetes.io/serviceaccount/"
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(must(os.ReadFile(folder + "ca.crt")))
	client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authorities}}
	request := must(http.NewRequest("GET", "https://kubernetes.default.svc/api/v1", nil))
	request.Header.Set("Authorization", "Bearer "+string(must(os.ReadFile(folder+"token"))))
	response := must(client.Do(request))
	fmt.Println(response.Status)
}

func fetch(url string) (string, error) {
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", response.StatusCode)
	}
	return strings.TrimSpace(string(body)), err
}

func sorted(set map[string]bool) []string {
	var keys []string
	for key := range set {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

func number(text string) int {
	value, _ := strconv.Atoi(text)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}
