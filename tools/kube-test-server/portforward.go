package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/proxy"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
)

// portForwardREST hands a connection on to the kubelet of the pod's node, as upstream does: the node's first address and the
// port of its kubelet, without looking at the certificate. Translation between SPDY and websockets is not done here: what
// the caller speaks, the kubelet has to speak.
type portForwardREST struct{ pods, nodes *registry.Store }

func (p *portForwardREST) New() runtime.Object      { return &corev1.Pod{} }
func (p *portForwardREST) Destroy()                 {}
func (p *portForwardREST) ConnectMethods() []string { return []string{"GET", "POST"} }
func (p *portForwardREST) NewConnectOptions() (runtime.Object, bool, string) {
	return nil, false, ""
}
func (p *portForwardREST) Connect(ctx context.Context, name string, _ runtime.Object, r rest.Responder) (http.Handler, error) {
	o, err := p.pods.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	pod := o.(*corev1.Pod)
	if pod.Spec.NodeName == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", name))
	}
	o, err = p.nodes.Get(genericrequest.WithNamespace(ctx, ""), pod.Spec.NodeName, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	node := o.(*corev1.Node)
	if len(node.Status.Addresses) == 0 {
		return nil, apierrors.NewInternalError(fmt.Errorf("no preferred addresses found for node %s", node.Name))
	}
	port := strconv.Itoa(int(node.Status.DaemonEndpoints.KubeletEndpoint.Port))
	host := net.JoinHostPort(node.Status.Addresses[0].Address, port)
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		to := &url.URL{Scheme: "https", Host: host, Path: "/portForward/" + pod.Namespace + "/" + name, RawQuery: "port=" + strings.Join(req.URL.Query()["ports"], ",")}
		proxy.NewUpgradeAwareHandler(to, transport, false, true, proxy.NewErrorResponder(r)).ServeHTTP(w, req)
	}), nil
}
